"""The HTML report of output folders: a summary of the data set, and a card per image with its picture and its maps."""
