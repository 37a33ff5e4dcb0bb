"""Reading and writing data: one file per format, plain arrays out."""
