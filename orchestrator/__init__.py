"""Who runs when: packs, Ray Tune, commits, resume, progress, the command line."""
