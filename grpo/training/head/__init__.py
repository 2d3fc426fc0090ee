"""RL of the diffusion head, beside TRL's of the tokens: credit, losses, and the learner that one rank has of it."""
