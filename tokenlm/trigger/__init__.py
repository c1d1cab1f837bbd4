"""Triggers: whether a phrase was said, found in a stream by nets of rising cost.

A streaming `detector` proposes, a `checker` that reads phones disposes, and what tells speech meant
for the device from other speech has the last word. All of them are under a million parameters.
"""
