"""BLIP3o-NEXT in the released layout."""
