"""dposer.body"""
