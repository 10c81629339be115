"""Speed of the product beside its peers, in one run: `make bench`.

The product's own code path is what is measured. Machines differ, so peers run in the same process, repeats of all
contenders alternate, and ratios of medians are what is reported. One file per line of the table.
"""
