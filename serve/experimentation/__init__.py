"""Online experiments: their statistics (plain values in and out), and how one starts, is watched and ends."""
