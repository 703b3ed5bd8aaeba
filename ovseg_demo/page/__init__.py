"""The page: layout, viewer and handlers. No science in here; results come from `ovseg_demo.segmenter`."""
