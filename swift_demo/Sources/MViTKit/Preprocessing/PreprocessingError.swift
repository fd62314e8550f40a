import Foundation

/// Why an image could not be brought to a model's input.
public enum PreprocessingError: Error, Hashable, Sendable {
  /// An image has no pixels, or an edge of more than 16 million.
  case unworkableSize(what: String, PixelSize)
  /// The target buffer is not of the input's size.
  case wrongTargetSize(PixelSize, expected: PixelSize)
  /// Rows are shorter than their pixels, or the bytes fewer than the rows.
  case shortBuffer(size: PixelSize, bytesPerRow: Int, byteCount: Int)
  /// The data is no image of the formats PGM, PPM or PAM; the text says what is wrong.
  case notNetpbm(String)
}

extension PreprocessingError: CustomStringConvertible, LocalizedError {
  /// A sentence for whoever sees it.
  public var description: String {
    switch self {
    case .unworkableSize(let what, let size):
      "the \(what) is \(size) pixels; every edge must have from 1 to \(maximumEdge)"
    case .wrongTargetSize(let size, let expected):
      "the target buffer is \(size) pixels, but the model's input \(expected)"
    case .shortBuffer(let size, let bytesPerRow, let byteCount):
      "\(byteCount) bytes with \(bytesPerRow) a row do not hold \(size) pixels of 4 bytes"
    case .notNetpbm(let problem):
      "not a binary PGM, PPM or PAM image: \(problem)"
    }
  }

  /// The same sentence.
  public var errorDescription: String? { description }
}
