"""What people look at: pages of rows, clusters side by side, the report as a file."""
