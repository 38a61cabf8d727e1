"""The transducer: labels that are written between frames, each seeing those before it."""
