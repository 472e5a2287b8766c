"""Networks that turn an input into features: transformers encoders and decoders, image networks, static vectors."""
