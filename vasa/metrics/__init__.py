"""How good a model is: every figure of docs/results.md, on people, voices and sentences never trained on."""
