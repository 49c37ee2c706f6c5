"""The Ingrain protocol: both of its servers, the one that infers and the one that keeps models, at one address."""
