"""A bundle in front of traffic: the SeldonDeployment, the cluster, the metrics, the evidence, the rollout."""
