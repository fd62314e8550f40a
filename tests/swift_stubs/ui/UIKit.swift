// Interface of the part of UIKit that the app uses, for type-checking off Apple systems.
// Bodies are unreachable: nothing is ever linked against this module.
@_exported import CoreGraphics
import AVFoundation
import Foundation

@MainActor open class UIResponder: NSObject {
  public nonisolated override init() { fatalError() }
}

@MainActor open class UIView: UIResponder {
  public override init() { fatalError() }
  open class var layerClass: AnyClass { fatalError() }
  open var layer: CALayer { fatalError() }
  open var isAccessibilityElement: Bool {
    get { fatalError() }
    set { fatalError() }
  }
  open var accessibilityLabel: String? {
    get { fatalError() }
    set { fatalError() }
  }
}

@MainActor public final class UIApplication: UIResponder {
  public nonisolated static let openSettingsURLString = ""
}
