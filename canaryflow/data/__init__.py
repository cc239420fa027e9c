"""Rows in: sources, the contract data must meet, validation, the profile, the split and the samples."""
