"""dposer.metrics"""
