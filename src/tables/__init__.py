"""The tables of README and docs: from archives of runs to CSV files in results/, and from those to the pages."""
