"""What a person sees: figures, views and the report. No torch, no kernel, no network."""
