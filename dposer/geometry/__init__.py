"""dposer.geometry"""
