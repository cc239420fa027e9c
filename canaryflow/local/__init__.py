"""One machine as the platform.

A Kubernetes-shaped API, Seldon's operator, pods as processes and Envoy as the gateway, in one Python process.
"""
