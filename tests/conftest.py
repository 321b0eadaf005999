"""Triton's interpreter runs the kernels on CPU tensors; it must be asked for before anything imports Triton."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
