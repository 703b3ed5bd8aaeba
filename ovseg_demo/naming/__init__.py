"""One arm names regions: regions and words to features, features to scores; names that nobody typed."""
