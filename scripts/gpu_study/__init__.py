"""The study that a GPU is needed for; scripts/gpu_study.sh starts it."""
