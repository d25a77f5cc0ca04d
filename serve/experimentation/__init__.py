"""The statistics of online experiments: plain values in and out."""
