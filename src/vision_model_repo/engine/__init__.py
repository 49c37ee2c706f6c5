"""Who runs the models, when and where. Knows neither HTTP nor any particular model."""
