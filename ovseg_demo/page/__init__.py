"""The page: layout, viewer and handlers. Results come from `ovseg_demo.segmenter`."""
