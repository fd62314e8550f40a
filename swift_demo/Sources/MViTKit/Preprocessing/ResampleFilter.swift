import Foundation

/// A filter of Pillow's `Image.resize`; all but `nearest` widen when they shrink an image.
public enum ResampleFilter: String, CaseIterable, Hashable, Sendable {
  /// The closest pixel.
  case nearest
  /// The mean of the pixels under a target pixel.
  case box
  /// A triangle of two pixels.
  case bilinear
  /// A Hamming window of two pixels.
  case hamming
  /// A cubic of four pixels, with a = -0.5.
  case bicubic
  /// A windowed sinc of six pixels.
  case lanczos

  /// Distance from the centre, in pixels, beyond which the filter is zero.
  var support: Double {
    switch self {
    case .nearest, .box: 0.5
    case .bilinear, .hamming: 1
    case .bicubic: 2
    case .lanczos: 3
    }
  }

  /// The filter's value at a distance from its centre.
  func weight(at distance: Double) -> Double {
    let x = abs(distance)
    switch self {
    case .nearest, .box:
      return distance > -0.5 && distance <= 0.5 ? 1 : 0
    case .bilinear:
      return x < 1 ? 1 - x : 0
    case .hamming:
      guard x > 0 else { return 1 }
      guard x < 1 else { return 0 }
      // Pillow has these two in single precision.
      return sinc(x) * (Double(0.54 as Float) + Double(0.46 as Float) * cos(x * .pi))
    case .bicubic:
      let a = -0.5
      if x < 1 { return ((a + 2) * x - (a + 3)) * x * x + 1 }
      if x < 2 { return (((x - 5) * x + 8) * x - 4) * a }
      return 0
    case .lanczos:
      return x < 3 ? sinc(x) * sinc(x / 3) : 0
    }
  }
}

private func sinc(_ x: Double) -> Double {
  x == 0 ? 1 : sin(x * .pi) / (x * .pi)
}
