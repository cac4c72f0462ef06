"""What users index: arrays, pictures, listed files, and views of other datasets."""
