"""Facts of the paper as data: Figure 5 and every reported number. Pure Python, no torch."""
