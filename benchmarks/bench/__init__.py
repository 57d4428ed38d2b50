"""`make benchmark`: programs measured in turns, their figures, and the page that shows them."""
