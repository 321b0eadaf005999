"""Trainers for the face reader, the face model, the audio encoder and the motion generator."""
