"""Engines for weights of other makers, behind the interface of `vasa.pipeline.Vasa`."""
