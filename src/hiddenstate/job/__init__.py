"""The main job on files: fit, evaluate, predict. The command line and Python share it."""
