// One result in a page of its own: it was written into the page when it was saved.

const saved = JSON.parse(document.querySelector("#result").textContent);
document.title = `${saved.photo_name}: ${saved.message}`;
document.querySelector("#badge").append(make("p"));
const opened = await decodeResult(saved);
show(opened);
tellResult(opened);
