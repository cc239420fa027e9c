"""The components: typed signatures around canaryflow's library. One file each, no logic."""
