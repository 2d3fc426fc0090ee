"""Text rendering: PaddleOCR reads the image, `text_score` judges."""
