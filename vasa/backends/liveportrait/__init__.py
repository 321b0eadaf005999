"""LivePortrait's renderer and the motion generators that speak its motion: photographs at 512 px without training.

Our own code, written from the published architecture; converted weights of the LivePortrait family fit it exactly
(docs/photoreal.md).
"""
