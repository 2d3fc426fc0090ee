"""Networks that learned from people's choices what they like: PickScore, HPSv2, ImageReward, LAION's aesthetics."""
