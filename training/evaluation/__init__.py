"""How good the voice is: judges that take part in no training, on sentences no stage has heard."""
