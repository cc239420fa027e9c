"""The model room: training, search, export into a bundle, evaluation, tracking."""
