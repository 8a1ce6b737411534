"""A method, a metric and a data set for lipsync_bench."""
