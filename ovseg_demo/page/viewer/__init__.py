"""The viewer: HTML, CSS and JavaScript in the browser, and the payload they read."""
