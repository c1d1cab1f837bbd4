"""Triggers: the texts and recordings that they are trained with, and how they are measured."""
