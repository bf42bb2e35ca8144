"""Locule for training scripts: see `locule.client`."""
