"""What run folders say, read tolerantly, for the page and for reports. Nothing here imports torch."""
