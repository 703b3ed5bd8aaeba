"""How right a result is: figures from counts of pixels, and a label map of one photo as truth.

metrics.py   mIoU, accuracies, intervals, calibration
truth.py     read a label map, judge a result against it
"""
