"""Files in, tensors out, and back: images, audio, video, and finding the face in a picture."""
