"""dposer.viz"""
