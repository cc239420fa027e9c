"""The pipelines: which components, in which order, under which conditions."""
