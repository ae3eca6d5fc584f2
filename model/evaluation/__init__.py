"""What a classifier is worth: measures, tables and plots over posts with labels; trains nothing."""
