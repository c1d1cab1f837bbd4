"""Post-training of the speech LM: rewards, rollouts, and what its stages share."""
